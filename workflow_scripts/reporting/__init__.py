"""What tables, figures, cards and the page share: results over seeds, table layout, colours, the page's template."""
