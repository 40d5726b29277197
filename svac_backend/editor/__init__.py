"""One annotator's request in the editor: what lies before them, what is asked, what is answered. Free of torch."""
