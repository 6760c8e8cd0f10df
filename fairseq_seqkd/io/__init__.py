"""Files that are whole or not there, locks, text readers and progress bars."""
