"""The run of a recipe: batches, the training loop, teachers, evaluation, the folder of a run."""
