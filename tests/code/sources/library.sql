-- Readers and what they have borrowed.
CREATE TABLE library.reader (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    joined DATE DEFAULT CURRENT_DATE,
    CONSTRAINT reader_has_a_name CHECK (length(name) > 0 AND length(name) < 200)
);

CREATE TABLE IF NOT EXISTS "loan" (
    reader INTEGER REFERENCES library.reader (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    due DATE,
    returned BOOLEAN DEFAULT FALSE,
    PRIMARY KEY (reader, title)
);

CREATE INDEX loan_due ON loan (due);

-- Whoever should have brought a book back.
CREATE OR REPLACE VIEW overdue AS
SELECT reader.name, loan.title, CURRENT_DATE - loan.due AS days
FROM loan
JOIN library.reader AS reader ON reader.id = loan.reader
WHERE loan.due < CURRENT_DATE AND NOT loan.returned
ORDER BY days DESC;

/* Two weeks from today, unless the reader owes a book. */
CREATE FUNCTION lend(reader_id INTEGER, book TEXT) RETURNS DATE AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM loan WHERE reader = reader_id AND due < CURRENT_DATE) THEN
        RAISE EXCEPTION 'reader % owes a book', reader_id;
    END IF;
    INSERT INTO loan (reader, title, due) VALUES (reader_id, book, CURRENT_DATE + 14);
    RETURN CURRENT_DATE + 14;
END;
$$ LANGUAGE plpgsql;

INSERT INTO library.reader (id, name) VALUES (1, 'Ada'), (2, 'Grace');
