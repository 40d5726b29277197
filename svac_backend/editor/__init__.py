"""One annotator's request in the editor: what they see, what they ask, what they are answered. Free of torch."""
