"""Bars of the issues and the README, held on real data and an emulated device."""
