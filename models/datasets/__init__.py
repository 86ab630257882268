"""Data sets that users bring: where their bytes are (`blobs`), what a file says (`csv_file`, `arrays`), what is in it
(`inspection`), and a family's part of it (`loading`). No torch; importing this package alone brings nothing."""
