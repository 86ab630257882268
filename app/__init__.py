"""The service: HTTP, the store, live streams and dispatch. Never imports torch."""
