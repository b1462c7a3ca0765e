{-# LANGUAGE LambdaCase #-}
module Garden
  ( Bed (..)
  , water
  ) where

import Data.List (sortOn)
import qualified Data.Map as Map

-- | Give every plant what it needs, the thirstiest first.
water :: Int -> [Plant] -> [(String, Int)]
water _ [] = []
water 0 plants = map (\plant -> (label plant, 0)) plants
water liters plants =
  zip (map label thirsty) (replicate (length thirsty) share)
  where
    thirsty = sortOn (negate . need) plants
    share = liters `div` max 1 (length plants)

-- | One plant.
data Plant = Plant
  { label :: String
  , need :: Int
  }
  deriving (Eq, Show)

newtype Bed = Bed (Map.Map String Plant)

type Liters = Int

class Thirsty a where
  thirst :: a -> Int
  thirst _ = 1

  describe :: a -> String
  describe one = "needs " ++ show (thirst one) ++ " liters, which is about what it would get from the rain"

instance Thirsty Plant where
  thirst = need

instance Thirsty a => Thirsty [a] where
  thirst = sum . map thirst

infixl 6 <+>

-- | Put two beds together; the left one's plants win.
(<+>) :: Bed -> Bed -> Bed
Bed left <+> Bed right = Bed (Map.unionWith const left right)

main :: IO ()
main = do
  let plants = [Plant "basil" 3, Plant "cactus" 1]
  mapM_ print (water 8 plants)
  putStrLn (unlines (map describe plants))
