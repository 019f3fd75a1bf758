"""One model for many people, exports, map data; imports search and below."""
