"""Classifiers for long-tailed data: banks, mixup, long-tail losses, distillation, reports."""
