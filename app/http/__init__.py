"""How HTTP is spoken here: problem documents, middleware, conditions, ranges and content negotiation."""
