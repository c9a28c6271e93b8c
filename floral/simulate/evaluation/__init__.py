"""Clients evaluated: personalized, predicting, diagnosed, exported."""
