"""What is compared. Every module has `make(loaded, weights, threads) -> Peer`; modules import nothing of each
other's world, because ours and theirs live in different environments."""
