# Rails' ActiveRecord. Its default is one transaction for each migration, and an advisory lock on a second connection.
#
# The protocol of run.py is that of serve.py.
require "json"
require "fileutils"
require "active_record"

ANSWERS = $stdout.dup
ANSWERS.sync = true
$stdout.reopen($stderr)

MIGRATIONS = {
  nullable_column: "add_column :orders, :comment, :text",
  constant_default: "add_column :orders, :priority, :integer, null: false, default: 0",
  volatile_default: 'add_column :baskets, :token, :uuid, null: false, default: -> { "gen_random_uuid()" }',
  index: "add_index :orders, :email",
  unique: "add_index :orders, :number, unique: true",
  foreign_key: "add_foreign_key :orders, :shops",
  not_null: "change_column_null :orders, :email, false",
  check: 'add_check_constraint :orders, "amount >= 0", name: "orders_amount"',
  rename_column: "rename_column :orders, :note, :remark",
  drop_column: "remove_column :orders, :old_note, :text",
  column_index_key: <<~RUBY,
    add_reference :orders, :region, foreign_key: true, index: false
    add_index :orders, [:region_id, :email]
  RUBY
  table_and_orders: <<~RUBY,
    create_table :refunds do |table|
      table.references :order, null: false, foreign_key: true
    end
    add_column :orders, :refunded, :decimal, precision: 12, scale: 2
    add_check_constraint :orders, "refunded >= 0", name: "orders_refunded"
    add_index :orders, [:email, :created_at]
  RUBY
  column_and_index: <<~RUBY,
    add_column :baskets, :tracking, :uuid, null: false, default: -> { "gen_random_uuid()" }
    add_index :baskets, :tracking
  RUBY
  # Version 6.1 has no words for an enum type.
  enum: <<~RUBY,
    reversible do |direction|
      direction.up do
        execute "CREATE TYPE order_kind AS ENUM ('web', 'phone')"
        add_column :orders, :kind, :order_kind, null: false, default: "web"
      end
      direction.down do
        remove_column :orders, :kind
        execute "DROP TYPE order_kind"
      end
    end
  RUBY
  filled_column: <<~RUBY,
    add_column :baskets, :label, :text, default: ""
    up_only { execute "UPDATE baskets SET label = 'basket ' || id" }
    change_column_null :baskets, :label, false
  RUBY
  type: <<~RUBY,
    reversible do |direction|
      direction.up { change_column :baskets, :pieces, :bigint }
      direction.down { change_column :baskets, :pieces, :integer }
    end
  RUBY
}.freeze

FileUtils.mkdir_p("db/migrate")
# As config/database.yml of a new project.
ActiveRecord::Base.establish_connection(
  adapter: "postgresql", encoding: "unicode", host: ENV["PGHOST"], port: ENV["PGPORT"], username: ENV["PGUSER"], database: ENV["PGDATABASE"]
)

def context
  ActiveRecord::MigrationContext.new("db/migrate", ActiveRecord::SchemaMigration)
end

def up(count)
  MIGRATIONS.first(count).each_with_index do |(step, body), index|
    text = "class #{step.to_s.camelize} < ActiveRecord::Migration[6.1]\n  def change\n#{body.gsub(/^/, "    ")}\n  end\nend\n"
    File.write("db/migrate/#{20260101000001 + index}_#{step}.rb", text)
  end
  context.migrate
end

def obey(line)
  command, count = line.split
  command == "up" ? up(count.to_i) : context.down(0)
  { ok: true }
rescue StandardError => error
  warn error.full_message
  { ok: false, error: "#{error.class} #{error.message.lines.last(3).join.strip}" }
end

hello = { steps: MIGRATIONS.keys, down: true, history: "SELECT version FROM schema_migrations ORDER BY version" }
ANSWERS.puts(JSON.generate(hello))
$stdin.each_line { |line| ANSWERS.puts(JSON.generate(obey(line))) }
