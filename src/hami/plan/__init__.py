"""The decision, pure: an ask and a snapshot in, a plan or refusals out. Names no vendor, changes nothing."""
