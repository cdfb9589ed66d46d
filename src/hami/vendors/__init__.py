"""One description a vendor, the table that lists them, and what pods ask of whichever: `ask` has the way in."""
