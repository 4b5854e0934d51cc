#!/usr/bin/env bash
# The word list of the profanity filter rustrict, by its own degrees.
#
# Versions: crates.io rustrict 0.7.39.
# Behaviour: src/profanity.csv gives each word a degree from 0 to 3 for profane, offensive and sexual. At degree 2 or more stand words that an
#   agent of an insurer, a shop or a baker writes every day ("pregnant", "naked", "cracker", "underskirt", "flange", "bobs", "tidies"), while
#   "damn" has degree 1 and "bullshit" and "shitty" are no words of the list. So the list
#   cannot be taken by degree alone: beside it stand plain words to leave out and compounds to add. An ending that is put to its
#   words makes more plain ones: "asses" and "s", "muff" and "in".
# Output: the lines of these words.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cargo init --quiet --name probe --vcs none
cargo add --quiet rustrict@=0.7.39 --no-default-features
cargo vendor --quiet vendor > /dev/null
list=vendor/rustrict/src/profanity.csv
degree() { awk -F, -v word="$1" '$1 == word { print ($2 > $3 ? ($2 > $4 ? $2 : $4) : ($3 > $4 ? $3 : $4)) }' "$list"; }
for word in pregnant naked cracker underskirt flange bobs tidies asses muff; do
  echo "$word: $(degree "$word")"
  [ "$(degree "$word")" -ge 2 ]
done
echo "damn: $(degree damn)"
[ "$(degree damn)" -eq 1 ]
for word in bullshit shitty; do
  [ -z "$(degree "$word")" ]
  echo "$word: not there"
done
echo "as stated"
