"""Reports: one self-contained HTML page per flow, made from products and records alone."""
