-- Which worker has claimed a webhook. The same as ../sqlite/008_webhook_owner.sql.

-- host.row.number, while it is pending and claimed: when that worker dies it is anybody's at once.
ALTER TABLE webhooks ADD COLUMN owner text;
