"""One description a vendor, and the table that lists them."""
