"""Language models behind decisions: prompts, answers that are kept, and where answers come from."""
