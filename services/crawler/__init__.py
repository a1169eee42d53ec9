"""From public posts to a frozen data set of pictures and the emoji they were posted with."""
