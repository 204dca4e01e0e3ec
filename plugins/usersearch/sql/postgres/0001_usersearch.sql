-- +goose Up
-- What of an account's vCard the directory shows.
CREATE TABLE user_search_entry (
    account text   COLLATE "C" NOT NULL PRIMARY KEY, -- bare, prepared
    domain  text   COLLATE "C" NOT NULL,             -- the account's
    given   text   COLLATE "C" NOT NULL,
    family  text   COLLATE "C" NOT NULL,
    nick    text   COLLATE "C" NOT NULL,
    email   text   COLLATE "C" NOT NULL,
    card_at bigint NOT NULL              -- the vCard's vcard.Stored.At, unix microseconds
);
-- What it is found by.
CREATE TABLE user_search_word (
    domain  text COLLATE "C" NOT NULL,
    field   text COLLATE "C" NOT NULL, -- as XEP-0055 §7.2 calls it
    word    text COLLATE "C" NOT NULL, -- folded
    account text COLLATE "C" NOT NULL,
    PRIMARY KEY (domain, field, word, account)
);
CREATE INDEX user_search_word_account ON user_search_word (account);
-- Who has said whether he is found; the others are as the operator has set.
CREATE TABLE user_search_choice (
    account text    COLLATE "C" NOT NULL PRIMARY KEY, -- bare, prepared
    found   boolean NOT NULL
);
-- What searchers have used up.
CREATE TABLE user_search_rate (
    searcher   text   COLLATE "C" NOT NULL PRIMARY KEY, -- an account here, or another server
    used_until bigint NOT NULL              -- unix microseconds: from then on nothing is used
);
CREATE INDEX user_search_rate_until ON user_search_rate (used_until);

-- +goose Down
DROP TABLE user_search_rate;
DROP TABLE user_search_choice;
DROP TABLE user_search_word;
DROP TABLE user_search_entry;
