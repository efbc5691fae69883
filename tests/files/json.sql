-- plan --format json
BEGIN;
ALTER TABLE orders ADD COLUMN shop_id bigint;
CREATE INDEX ON orders (shop_id);
UPDATE orders SET note = '';
CREATE INDEX ON orders (note);
COMMIT;
