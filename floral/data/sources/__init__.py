"""Where examples come from: arrays, files, tables and hubs of data sets."""
