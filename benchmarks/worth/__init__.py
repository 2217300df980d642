"""What a metalearned loss is worth beside known losses: scenarios x methods, paired by split. See ``run.py``."""
