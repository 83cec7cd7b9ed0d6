import unittest

from greeting import greeting


class Greeting(unittest.TestCase):
    def test_greets_by_name_and_nobody_else(self) -> None:
        self.assertEqual(greeting("/hello/world"), "Hello, world!\n")
        self.assertIsNone(greeting("/hello/"))
        self.assertIsNone(greeting("/"))
