package openid

import (
	"fmt"
	"strings"

	"quinto/internal/canon"
)

// maxUserIDBytes bounds the value of userid_field.
const maxUserIDBytes = 512

// read takes the profile and the user's id from what the provider told.
func (v *verified) read(profile []byte, s *settings) error {
	if len(profile) > maxProfileBytes {
		return fmt.Errorf("the profile has more than %d bytes", maxProfileBytes)
	}
	value, err := canon.Canonical(profile, canon.Limits{})
	if err != nil {
		return fmt.Errorf("the profile is no JSON: %w", err)
	}
	field, _ := canon.Value(value).Get(s.userIDField)
	user, ok := field.String()
	switch {
	case !ok || user == "" || len(user) > maxUserIDBytes || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: the profile has no usable %s", errRefused, s.userIDField)
	case s.userIDField == "email" && !s.anyEmail && unverified(value):
		return fmt.Errorf("%w: its provider has not verified the e-mail address", errRefused)
	}
	v.user, v.profile = user, value
	return nil
}

// unverified reports whether a profile says that its e-mail address may be anybody's
// (OpenID Connect Core 1.0, 5.1). Some providers say it with a text.
func unverified(profile canon.Value) bool {
	says, _ := profile.Get("email_verified")
	if flag, ok := says.Bool(); ok {
		return !flag
	}
	text, ok := says.String()
	return ok && strings.EqualFold(text, "false")
}
