"""Detection results in the formats that other tools read."""
