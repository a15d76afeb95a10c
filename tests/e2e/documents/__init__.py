"""What Docker's engine answers, recorded; see `scenes` for how, and `record` to take it anew."""
