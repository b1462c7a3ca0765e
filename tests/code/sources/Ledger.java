package org.example.books;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;

/**
 * A list of bookings whose sum is always known.
 */
@SuppressWarnings("unused")
public final class Ledger {
    private static final BigDecimal ZERO = BigDecimal.ZERO;
    private final List<Booking> bookings = new ArrayList<>();
    private BigDecimal balance = ZERO;

    /** One booking: what for, and how much. */
    public record Booking(String purpose, BigDecimal amount) {
        public Booking {
            if (purpose == null || purpose.isBlank()) {
                throw new IllegalArgumentException("a booking needs a purpose, got " + purpose);
            }
            if (amount == null || amount.signum() == 0) {
                throw new IllegalArgumentException("a booking needs an amount, got " + amount);
            }
        }
    }

    public Ledger(List<Booking> opening) {
        for (Booking booking : opening) {
            book(booking);
        }
        if (balance.signum() < 0) {
            throw new IllegalStateException("the books open with a debt of " + balance.negate());
        }
        bookings.sort((left, right) -> left.amount().compareTo(right.amount()));
    }

    /**
     * Add a booking.
     *
     * @param booking what to add
     * @return the balance after it
     */
    @Deprecated
    public BigDecimal book(Booking booking) {
        bookings.add(booking);
        balance = balance.add(booking.amount());
        if (balance.compareTo(ZERO) < 0) {
            System.err.println("overdrawn by " + balance.negate() + " after " + booking.purpose());
        }
        return balance;
    }

    public int size() { return bookings.size(); }

    public BigDecimal balance() { return balance; }

    // Sums are never cached: the list is short, and it may be sorted by anybody who asks for it.
    BigDecimal total(String purpose) {
        BigDecimal sum = ZERO;
        for (Booking booking : bookings) {
            if (booking.purpose().equals(purpose)) {
                sum = sum.add(booking.amount());
            }
        }
        return sum;
    }
}

interface Auditor {
    boolean accepts(Ledger ledger);
}
