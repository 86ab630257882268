"""/docs: the API reference as one page, made from the OpenAPI document. It loads nothing, so it works offline."""

from app.openapi.reference.page import Page, reference_page

__all__ = ["Page", "reference_page"]
