"""Methods as data: stages of training (`stage`) and the methods by name (`catalogue`)."""
