-- Readers and what they have borrowed.
CREATE TABLE reader (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);

CREATE TABLE loan (
    reader INTEGER REFERENCES reader (id),
    title TEXT NOT NULL,
    due DATE
);

CREATE VIEW overdue AS
SELECT reader.name, loan.title
FROM loan JOIN reader ON reader.id = loan.reader
WHERE loan.due < CURRENT_DATE;
