// TypeORM. Its default is one transaction over all pending migrations.
import "reflect-metadata";
import typeorm from "typeorm";
import { URL_, serve } from "./serve.mjs";

const { DataSource, Table, TableCheck, TableColumn, TableForeignKey, TableIndex, TableUnique } = typeorm;

const add = (table, options) => (runner) => runner.addColumn(table, new TableColumn(options));
const drop = (table, column) => (runner) => runner.dropColumn(table, column);
const email = (isNullable) => new TableColumn({ name: "email", type: "character varying", length: "60", collation: "und-x-icu", isNullable });
const key = (name, column, table) =>
  new TableForeignKey({ name, columnNames: [column], referencedTableName: table, referencedColumnNames: ["id"] });
const MIGRATIONS = {
  nullable_column: [add("orders", { name: "comment", type: "text", isNullable: true }), drop("orders", "comment")],
  constant_default: [add("orders", { name: "priority", type: "integer", default: 0 }), drop("orders", "priority")],
  volatile_default: [add("baskets", { name: "token", type: "uuid", default: "gen_random_uuid()" }), drop("baskets", "token")],
  index: [
    (runner) => runner.createIndex("orders", new TableIndex({ name: "orders_email", columnNames: ["email"] })),
    (runner) => runner.dropIndex("orders", "orders_email"),
  ],
  unique: [
    (runner) => runner.createUniqueConstraint("orders", new TableUnique({ name: "orders_number", columnNames: ["number"] })),
    (runner) => runner.dropUniqueConstraint("orders", "orders_number"),
  ],
  foreign_key: [
    (runner) => runner.createForeignKey("orders", key("orders_shop", "shop_id", "shops")),
    (runner) => runner.dropForeignKey("orders", "orders_shop"),
  ],
  not_null: [
    (runner) => runner.changeColumn("orders", "email", email(false)),
    (runner) => runner.changeColumn("orders", "email", email(true)),
  ],
  check: [
    (runner) => runner.createCheckConstraint("orders", new TableCheck({ name: "orders_amount", expression: "amount >= 0" })),
    (runner) => runner.dropCheckConstraint("orders", "orders_amount"),
  ],
  rename_column: [
    (runner) => runner.renameColumn("orders", "note", "remark"),
    (runner) => runner.renameColumn("orders", "remark", "note"),
  ],
  drop_column: [drop("orders", "old_note"), add("orders", { name: "old_note", type: "text", isNullable: true })],
  column_index_key: [
    async (runner) => {
      await runner.addColumn("orders", new TableColumn({ name: "region_id", type: "bigint", isNullable: true }));
      await runner.createIndex("orders", new TableIndex({ name: "orders_region", columnNames: ["region_id", "email"] }));
      await runner.createForeignKey("orders", key("orders_region_key", "region_id", "regions"));
    },
    drop("orders", "region_id"),
  ],
  table_and_orders: [
    async (runner) => {
      await runner.createTable(
        new Table({
          name: "refunds",
          columns: [
            { name: "id", type: "bigint", isPrimary: true, isGenerated: true, generationStrategy: "increment" },
            { name: "order_id", type: "bigint" },
          ],
          foreignKeys: [key("refunds_order", "order_id", "orders")],
          indices: [{ name: "refunds_by_order", columnNames: ["order_id"] }],
        }),
      );
      await runner.addColumn("orders", new TableColumn({ name: "refunded", type: "numeric", isNullable: true }));
      await runner.createCheckConstraint("orders", new TableCheck({ name: "orders_refunded", expression: "refunded >= 0" }));
      await runner.createIndex("orders", new TableIndex({ name: "orders_created", columnNames: ["email", "created_at"] }));
    },
    async (runner) => {
      await runner.dropIndex("orders", "orders_created");
      await runner.dropColumn("orders", "refunded");
      await runner.dropTable("refunds");
    },
  ],
  column_and_index: [
    async (runner) => {
      await runner.addColumn("baskets", new TableColumn({ name: "tracking", type: "uuid", default: "gen_random_uuid()" }));
      await runner.createIndex("baskets", new TableIndex({ name: "baskets_tracking", columnNames: ["tracking"] }));
    },
    drop("baskets", "tracking"),
  ],
  enum: [
    add("orders", { name: "kind", type: "enum", enum: ["web", "phone"], enumName: "order_kind", default: "'web'" }),
    drop("orders", "kind"),
  ],
  filled_column: [
    async (runner) => {
      const label = (isNullable) => new TableColumn({ name: "label", type: "text", default: "''", isNullable });
      await runner.addColumn("baskets", label(true));
      await runner.query("UPDATE baskets SET label = 'basket ' || id");
      await runner.changeColumn("baskets", "label", label(false));
    },
    drop("baskets", "label"),
  ],
  // Its own changeColumn drops the column, and adds an empty one.
  type: [
    (runner) => runner.query("ALTER TABLE baskets ALTER COLUMN pieces TYPE bigint"),
    (runner) => runner.query("ALTER TABLE baskets ALTER COLUMN pieces TYPE integer"),
  ],
};

// A migration is a class whose name ends in a time.
const classes = Object.entries(MIGRATIONS).map(([step, [forth, back]], index) => {
  const name = `${step}${1700000000000 + index}`;
  return {
    [name]: class {
      name = name;
      up = forth;
      down = back;
    },
  }[name];
});

async function migrate(count, act) {
  const source = await new DataSource({ type: "postgres", url: URL_, migrations: classes.slice(0, count) }).initialize();
  try {
    await act(source);
  } finally {
    await source.destroy();
  }
}

await serve({
  steps: Object.keys(MIGRATIONS),
  history: "SELECT timestamp, name FROM migrations ORDER BY id",
  up: (count) => migrate(count, (source) => source.runMigrations()),
  down: () =>
    migrate(classes.length, async (source) => {
      for (const _ of classes) await source.undoLastMigration();
    }),
});
