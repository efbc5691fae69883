-- Django's way: a new column, its index and its key in one transaction.
BEGIN;
ALTER TABLE orders ADD COLUMN shop_id bigint;
ALTER TABLE orders ADD CONSTRAINT orders_shop FOREIGN KEY (shop_id) REFERENCES shops;
INSERT INTO schema_migrations VALUES ('1');
CREATE INDEX orders_shop_id
    ON orders (shop_id);
COMMIT;
CREATE INDEX ON orders (note);
START TRANSACTION;
UPDATE orders SET note = '';
CREATE INDEX ON orders (note);
END;
BEGIN;
ALTER TABLE orders DROP COLUMN note;
ALTER TABLE orders ALTER id TYPE int;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CREATE INDEX ON orders (id);
COMMIT AND CHAIN;
CREATE INDEX ON orders (id);
ROLLBACK;
