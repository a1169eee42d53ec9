"""The three services of EmojiNet, and what they share."""
