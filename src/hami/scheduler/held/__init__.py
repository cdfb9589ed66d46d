"""What is held from one request to the next: pods that wait, gangs, room being made, words and events already said."""
