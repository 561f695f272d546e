"""How fast arms run, what memory they take, where the time goes, and what the machine can do."""
