"""What a run writes: checkpoints, the files of its folder, the Hub."""
