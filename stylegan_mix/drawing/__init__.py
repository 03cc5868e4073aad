"""Plots, sheets of labelled images, and HTML pages."""
