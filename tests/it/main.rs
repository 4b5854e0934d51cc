mod translation;
