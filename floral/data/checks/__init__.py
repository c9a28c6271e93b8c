"""What every source and population passes through: values, labels, names, and what is missing."""
