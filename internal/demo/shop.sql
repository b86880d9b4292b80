-- A small shop. Everything follows from the number of a row, so that two runs
-- hold the same rows, but for the times at which live changes were made.
CREATE TABLE customers (
  id         bigint PRIMARY KEY,
  name       text NOT NULL,
  email      text NOT NULL,
  phone      text,
  country    text NOT NULL,
  segment    text NOT NULL,
  newsletter boolean NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE TABLE products (
  id         integer PRIMARY KEY,
  sku        text NOT NULL,
  title      text NOT NULL,
  price      numeric(10,2) NOT NULL,
  attributes jsonb NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE TABLE orders (
  id          bigint PRIMARY KEY,
  customer_id bigint NOT NULL,
  status      text NOT NULL,
  currency    text NOT NULL,
  total       numeric(12,2) NOT NULL,
  note        text,
  order_uuid  uuid NOT NULL,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL
);
CREATE TABLE order_items (
  order_id   bigint NOT NULL,
  line       smallint NOT NULL,
  product_id integer NOT NULL,
  quantity   integer NOT NULL,
  price      numeric(10,2) NOT NULL,
  PRIMARY KEY (order_id, line)
);
-- rows are only added here: its table in the lake is a changelog
CREATE TABLE order_events (
  id       bigint PRIMARY KEY,
  order_id bigint NOT NULL,
  event    text NOT NULL,
  at       timestamptz NOT NULL
);

-- spread turns a row's number and the use of the result into a number below n.
CREATE FUNCTION spread(i bigint, use bigint, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (hashint8extended(i, use) & 9223372036854775807) % n $$;

CREATE FUNCTION customer_email(i bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT 'customer' || i || '@' || (ARRAY['example.com', 'example.org', 'example.net'])[1 + spread(i, 1, 3)] $$;

INSERT INTO customers
SELECT i, (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Donald', 'Zoë', 'Søren', '良子'])[1 + spread(i, 2, 8)] || ' ' || i,
  customer_email(i), CASE WHEN i % 7 = 0 THEN NULL ELSE '+49 30 ' || 1000000 + spread(i, 3, 9000000) END,
  (ARRAY['DE', 'US', 'GB', 'PL', 'SE', 'CH', 'JP'])[1 + spread(i, 4, 7)], (ARRAY['lead', 'customer', 'other'])[1 + spread(i, 30, 3)], i % 3 = 0, t, t
FROM (SELECT i, timestamptz '2024-01-01 00:00:00+00' + spread(i, 5, 31536000) * interval '1 second' AS t FROM generate_series(1, 20000) i) c;

INSERT INTO products
SELECT i, 'SKU-' || to_char(i, 'FM00000'), (ARRAY['lamp', 'chair', 'desk', 'shelf', 'rug'])[1 + spread(i, 6, 5)] || ' no. ' || i,
  (100 + spread(i, 7, 99900))::numeric / 100,
  jsonb_build_object('colour', (ARRAY['red', 'blue', 'oak', 'black'])[1 + spread(i, 8, 4)], 'weight', spread(i, 9, 4000)::numeric / 100,
    'tags', jsonb_build_array('t' || spread(i, 10, 9), 't' || spread(i, 11, 9))),
  timestamptz '2024-01-01 00:00:00+00'
FROM generate_series(1, 1000) i;

INSERT INTO orders
SELECT i, 1 + spread(i, 12, 20000), (ARRAY['new', 'paid', 'packed', 'shipped', 'delivered', 'returned'])[1 + spread(i, 13, 6)],
  (ARRAY['EUR', 'USD', 'GBP', 'CHF'])[1 + spread(i, 14, 4)], (500 + spread(i, 15, 200000))::numeric / 100,
  CASE WHEN i % 4 = 0 THEN 'please leave it with the neighbour, floor ' || spread(i, 16, 9) END,
  (lpad(to_hex(spread(i, 17, 9223372036854775807)), 16, '0') || lpad(to_hex(i), 16, '0'))::uuid, t, t
FROM (SELECT i, timestamptz '2025-01-01 00:00:00+00' + spread(i, 18, 31536000) * interval '1 second' AS t FROM generate_series(1, 80000) i) o;

INSERT INTO order_items
SELECT i, line, 1 + spread(i * 10 + line, 19, 1000), 1 + spread(i * 10 + line, 20, 5), (100 + spread(i * 10 + line, 21, 99900))::numeric / 100
FROM generate_series(1, 80000) i, generate_series(1, 2) line WHERE line = 1 OR i % 4 < 3 AND i % 2 = 0;

INSERT INTO order_events
SELECT i, 1 + spread(i, 22, 80000), 'placed', timestamptz '2025-01-01 00:00:00+00' + spread(i, 23, 31536000) * interval '1 second'
FROM generate_series(1, 20000) i;

-- live makes the changes of one step. Step 0 and below touch every partition
-- of every topic: they mark the end of what went before.
CREATE PROCEDURE live(step bigint, orders_new int, touched int) LANGUAGE plpgsql AS $$
DECLARE first bigint := 80000 + (step - 1) * orders_new; now timestamptz := clock_timestamp();
BEGIN
  INSERT INTO orders SELECT first + i, 1 + spread(first + i, 12, 20000), 'new', 'EUR', (500 + spread(first + i, 15, 200000))::numeric / 100, NULL,
    (lpad(to_hex(spread(first + i, 17, 9223372036854775807)), 16, '0') || lpad(to_hex(first + i), 16, '0'))::uuid, now, now
    FROM generate_series(1, orders_new) i;
  INSERT INTO order_items SELECT first + i, line, 1 + spread((first + i) * 10 + line, 19, 1000), 1 + line, (100 + spread((first + i) * 10 + line, 21, 99900))::numeric / 100
    FROM generate_series(1, orders_new) i, generate_series(1, 2) line;
  INSERT INTO order_events SELECT 20000 + first - 80000 + i, first + i, 'placed', now FROM generate_series(1, orders_new) i;
  UPDATE orders SET status = (ARRAY['paid', 'packed', 'shipped', 'delivered', 'returned'])[1 + spread(id + step, 24, 5)], updated_at = now
    WHERE id IN (SELECT 1 + spread(step * 1000 + i, 25, first) FROM generate_series(1, 2 * touched) i);
  UPDATE customers SET email = 'moved.' || step || '.' || customer_email(id), updated_at = now
    WHERE id IN (SELECT 1 + spread(step * 1000 + i, 26, 20000) FROM generate_series(1, touched) i);
  UPDATE products SET price = price + 0.01, updated_at = now
    WHERE id IN (SELECT 1 + spread(step * 1000 + i, 27, 1000) FROM generate_series(1, touched) i);
  UPDATE order_items SET quantity = quantity + 1
    WHERE (order_id, line) IN (SELECT 1 + spread(step * 1000 + i, 28, 80000), 1 FROM generate_series(1, touched) i);
  DELETE FROM order_items WHERE order_id IN (SELECT 1 + spread(step * 1000 + i, 29, 80000) FROM generate_series(1, touched / 8) i);
  DELETE FROM orders WHERE id IN (SELECT 1 + spread(step * 1000 + i, 29, 80000) FROM generate_series(1, touched / 8) i);
END $$;
ANALYZE;
