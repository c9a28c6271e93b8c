"""From kept runs to tables, figures and advice; made from what is on disk alone."""
