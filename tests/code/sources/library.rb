# frozen_string_literal: true

require 'date'

# Everything about lending books.
module Library
  class Overdue < StandardError; end

  # A book that can be lent to one reader at a time.
  class Book
    attr_reader :title, :due

    def initialize(title, days: 14)
      raise ArgumentError, "title must not be blank, got #{title.inspect}" if title.strip.empty?

      @title = title
      @days = days
      @due = nil
      @reader = nil
    end

    # Hand the book to a reader.
    def lend(reader, today = Date.today)
      raise Overdue, <<~MESSAGE if @due && @due < today
        #{title} should have come back on #{@due};
        ask #{@reader} before you promise it to #{reader}.
      MESSAGE

      @reader = reader
      @due = today + @days
      self
    end

    def self.parse(line)
      title, days = line.split(';', 2).map(&:strip)
      days = Integer(days || 14)
      raise ArgumentError, "a book is lent for at least one day, got #{days}" unless days.positive?

      new(title, days: days)
    end

    class << self
      # Read a whole list, one book a line, and leave out what somebody has commented out with a hash sign.
      def parse_all(text)
        lines = text.lines.map(&:strip)
        lines.reject! { |line| line.empty? || line.start_with?('#') }
        lines.map { |line| parse(line) }
      end
    end

    private

    def late?(today)
      !@due.nil? && @due < today
    end
  end

  def self.shelve(books)
    # Letters first, then digits, as on the shelves themselves; case is of no importance to anybody.
    books.sort_by do |book|
      key = book.title.downcase
      [key.match?(/\A\d/) ? 1 : 0, key]
    end
  end
end
