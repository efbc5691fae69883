-- plan --transaction
CREATE TABLE shops (id bigint PRIMARY KEY);
ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops;
CREATE INDEX ON orders (shop_id);
SELECT tidy();
CREATE INDEX ON orders (note);
COMMIT;
CREATE INDEX ON orders (id);
