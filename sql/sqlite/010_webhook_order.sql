-- Who is the first of its order is looked up among those that are pending, however many came before.
-- The same as ../postgres/010_webhook_order.sql.

DROP INDEX webhooks_order;
CREATE INDEX webhooks_order ON webhooks (endpoint_id, order_key, state, position);
