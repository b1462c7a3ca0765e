open Printf

(** One booking: what for, and how much. *)
type booking = {
  text : string;
  cents : int;
}

and side = Debit | Credit

exception Unbalanced of int

(** Add up what was booked. *)
let total bookings =
  List.fold_left (fun sum { cents; _ } -> sum + cents) 0 bookings

let limit = 1_000_000

let rec even_positions = function
  | [] -> []
  | first :: rest -> first :: odd_positions rest

and odd_positions = function
  | [] -> []
  | _ :: rest -> even_positions rest

module type STORE = sig
  type t

  val load : string -> t
  val save : t -> string -> unit
end

module File_store = struct
  type t = booking list

  (* A line is a text and an amount. *)
  let load path =
    let read line = Scanf.sscanf line "%s@;%d" (fun text cents -> { text; cents }) in
    In_channel.with_open_text path (fun file -> List.map read (In_channel.input_lines file))

  let save bookings path =
    Out_channel.with_open_text path (fun file ->
        List.iter (fun { text; cents } -> fprintf file "%s;%d\n" text cents) bookings)
end

class account name =
  object (self)
    val mutable bookings : booking list = []

    method add booking =
      if abs booking.cents > limit then raise (Unbalanced booking.cents);
      bookings <- booking :: bookings

    method describe = sprintf "%s has %d cents" name (total bookings + List.length self#all)
    method all = bookings
  end

let ( +: ) booking account =
  account#add booking;
  account

let () = printf "%d\n" (total [])
