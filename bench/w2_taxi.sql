-- W2: rows first .. first+n-1 of taxi_trips. load.sh taxi N
\set ON_ERROR_STOP on
SET synchronous_commit = off;
INSERT INTO taxi_trips
SELECT i, (1 + h1 % 2)::int, t0, t0 + ((60 + h2 % 5400) || ' seconds')::interval,
  CASE WHEN h3 % 25 = 0 THEN NULL ELSE (1 + h3 % 6)::int END, (h2 % 5400)::float8 / 300 + (h4 % 100)::float8 / 100,
  (1 + h4 % 263)::int, (1 + h5 % 263)::int, (1 + h6 % 4)::int,
  (3 + (h2 % 5400)::numeric / 60)::numeric(10,2), ((h6 % 1500)::numeric / 100)::numeric(10,2),
  ((3 + (h2 % 5400)::numeric / 60)::numeric(10,2) + ((h6 % 1500)::numeric / 100)::numeric(10,2) + 0.50)::numeric(10,2)
FROM (SELECT i, h(i, 21+s) h1, h(i, 22+s) h2, h(i, 23+s) h3, h(i, 24+s) h4, h(i, 25+s) h5, h(i, 26+s) h6,
        timestamptz '2025-01-01 00:00:00+00' + ((h(i, 27+s) % 31536000) || ' seconds')::interval t0
      FROM generate_series(:first::bigint, :first::bigint + :n::bigint - 1) i, (SELECT 100 * :seed::bigint s) p OFFSET 0) x;
ANALYZE taxi_trips;
