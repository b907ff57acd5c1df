-- A snapshot may have a life time, after which it goes by itself: when it is over; NULL: it stays.
ALTER TABLE snapshot ADD COLUMN expires_us INTEGER;

-- Which points a group keeps besides the newest ones, as an operator writes it ("all:1h,hourly:1d").
CREATE TABLE retention (
    group_id BLOB PRIMARY KEY REFERENCES "group"(id) ON DELETE CASCADE, schedule TEXT NOT NULL
) STRICT;
