"""What a run will cost and has cost: its jobs, their work, their files. Nothing here but `count` imports torch."""
